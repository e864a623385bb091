"""Finding actions whose imagined outcome is the goal: optimisers, costs, receding horizon."""
