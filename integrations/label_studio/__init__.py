"""Label Studio: masks go there as pre-annotations, corrections come back."""
