"""How many chunks a wide axis is taken in."""


def count_chunks(columns: int, widest: int) -> int:
    """The fewest chunks of at most `widest` columns that divide them.

    Where a count that divides would leave chunks of less than half the width asked for, it is the
    fewest that need not divide, and the caller pads.
    """
    fewest = -(-columns // widest)
    dividing = next(count for count in range(fewest, columns + 1) if columns % count == 0)
    return dividing if dividing < 2 * fewest else fewest
