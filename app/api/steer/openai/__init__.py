"""Between OpenAI's words and those of this api."""
