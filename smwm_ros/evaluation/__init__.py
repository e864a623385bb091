"""Judging models and planners: closed-loop protocol, statistics, reports."""
