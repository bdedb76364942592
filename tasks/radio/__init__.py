"""What the radio stages share: their errors, telescopes and the beams of these."""
