PATIENCE = (
    1200  # seconds after which a wait is given up as endless: many times what a busy machine takes
)
