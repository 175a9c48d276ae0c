"""The index of a run, against which later dumps are held (known.py): its format, writing and looking up."""
