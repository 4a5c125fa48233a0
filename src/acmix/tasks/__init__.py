"""What trains and what uses the result: functions that return data. Import the module of a task."""
