"""An order service: orders, stock, payment with a deadline, a list in SQL, mail, and events for partners."""
