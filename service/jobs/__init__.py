"""Work that outlives a request: jobs of one or more images, kept in a table and in files.

table      what is to be done, how far it is, how it ended: SQLite, survives any end of the process
archive    the files of each job: uploaded, half done, restored
runner     brings what waits to the device, fair between users, and takes up what an end interrupted
restoring  one image with the device
ends       how an image ends
opening    tried until the folder of jobs can be used
desk       what a client may ask of it; knows no web framework
"""
