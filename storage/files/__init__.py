"""Files and folders, on this machine or on object storage, committed as a whole or not at all."""
