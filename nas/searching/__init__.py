"""The search: space, objective, controllers, studies, and what comes of them."""
