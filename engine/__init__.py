"""The production engine: from order lines to finished, verified, accounted-for cards."""
