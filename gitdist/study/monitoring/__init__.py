"""What watches a running study and changes nothing: display, figures of the stream, MLflow."""
