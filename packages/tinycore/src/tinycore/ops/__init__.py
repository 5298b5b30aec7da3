"""Operations that models spend their time in: plain PyTorch here."""
