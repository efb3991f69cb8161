"""Weakened variants of BitActor, one defect each, for the proof that the suite finds such a defect.

    python -m bitactor.validation.adversarial.variants NAME -m bitactor serve app.py …
    python -m bitactor.validation.adversarial.variants NAME probe.py

runs the program in this process after replacing a few attributes of BitActor's modules by their dotted names, as a
debugger would: nothing in the package imports these modules, and no setting reaches them. Never for production.
"""
