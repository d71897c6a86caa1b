"""The dashboard in Django admin: what whoever is on call looks at."""
