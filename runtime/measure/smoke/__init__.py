"""Does it transcribe? Clips whose words are known, every format, a forced language, a context, silence, a batch: by the
model in this process, or by a running server.

record    what is found, and the file it is kept in      cases    which clips
hearing   the model here, or a server: one interface     judge    a clip's transcript against what is said in it
reading   transcripts in every format, read back         trials   the checks beyond the clips
run       all of it, in order
"""
