def sp(:
