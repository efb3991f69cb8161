"""The parts of `bitactor validate`: each file measures one section of the report and declares its criteria."""
