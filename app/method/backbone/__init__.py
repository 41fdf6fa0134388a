"""The frozen LVLM: how it is loaded, prompted and looked into."""
