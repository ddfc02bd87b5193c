"""Jobs: measurements that start from artifacts or records and return named estimates."""
