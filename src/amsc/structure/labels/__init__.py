"""The algebra of labels: layers of them, how they meet, and the ledger of what is learnt."""
