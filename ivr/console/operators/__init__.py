"""The operators' console, under ``/desk``: calls, payments, customers, models, health; in English and Chinese.

``web.install`` adds the pages. Importing this package, or its tables and accounts, loads none of them.
"""
