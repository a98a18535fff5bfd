"""The face stage: photographs of people in, aligned crops of one face each out.

source --survey: decode, detect, describe (cached, parallel)--> faces of every picture
       --choose: the listed box, the identity's look, or the largest--> one face a picture
       --duplicates: perceptual hash--> samples whose encoder crops --> source, report, contact sheets
"""
