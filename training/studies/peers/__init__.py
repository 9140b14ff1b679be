"""The accuracies others publish on these films, run again with and without the leak in their split."""
