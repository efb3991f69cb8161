"""The static checks behind `make audit`: steps that read code, packages and what was built, and report findings."""
