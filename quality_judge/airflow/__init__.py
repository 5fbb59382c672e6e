"""The programmes of `training/` and `jobs/` as Airflow tasks: `operators`, `outcome` and the provider's entry point.

Importing this imports no Airflow. It knows no model and no Spark: the programmes run in a Python of their own.
"""
