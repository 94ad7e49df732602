"""Judge generators: photographs and films, coloured from their grey, against themselves."""
