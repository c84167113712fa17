"""Figures and static pages, all drawn from files: redrawing needs no training."""
