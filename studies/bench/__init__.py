"""Time and memory of modules and networks against others: suites, how they are measured, tables and figures."""
