"""Bodies of the routes below `/v1`, in OpenAI's words."""
