"""HTTP interfaces for the machines of others: merchants, their apps, banks."""
