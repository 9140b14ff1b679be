"""Everything that makes and judges weights; imports ``app`` so that both see the same pixels."""
