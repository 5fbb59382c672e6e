"""quality-judge: a few hundred expert labels become a judge that scores and filters a corpus in Spark.

Importing this package is light: neither torch nor Spark comes with it.
"""

__version__ = "0.1.0"
