"""The adversarial suite: attacks on a running service, its files, its library and its command line.

It shares no code with what it attacks: messages, HTTP and files are written by hand here, so that any malformed bytes
can be made and a defect of the codec is not repeated in its test. docs/adversarial.md says what is counted and how.
"""
