"""Fine-tuning: a trained model learns to answer, by the session that trains everything."""
