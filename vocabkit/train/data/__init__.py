"""What a training stage reads: samples, chat masks, token ids, packed rows."""
