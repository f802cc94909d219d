"""Programs behind the `alignlab` command; nothing else imports them."""
