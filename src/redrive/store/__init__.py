"""Where everything that was promised is kept. `port` says what a store guarantees; `app` picks one."""
