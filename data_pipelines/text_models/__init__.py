"""Who writes texts for curation: the policy itself, or an endpoint that speaks OpenAI's form."""
