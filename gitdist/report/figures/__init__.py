"""Figures of the report: functions that take the report and yield pictures."""
