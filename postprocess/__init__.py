"""Commands that turn stored probabilities into decisions: ensemble, threshold, rules, submit."""
