"""What a step costs on a slice that is not at hand: its FLOPs, its traffic, its modelled time."""
