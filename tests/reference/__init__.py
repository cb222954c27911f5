"""Slow references in float64: plain loops over positions, written from the equations, never imported by src."""
