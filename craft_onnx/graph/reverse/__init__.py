"""The reverse pass: from a graph to the graph of its vector-Jacobian product."""
