"""Every token knows where it came from: from a row to its page, from a page to the steps that read it, and out again."""
