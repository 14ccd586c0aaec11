"""Data sets, and labeled / unlabeled / positive-unlabeled splits of them."""
