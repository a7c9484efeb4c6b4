"""Tables, figures, the report and exports."""
