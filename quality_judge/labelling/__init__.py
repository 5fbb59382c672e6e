"""The page on which experts label: a small server on this machine, a journal that loses no answer. (extra `label`)"""
