"""`alignlab train`, for the processes that it starts."""

from alignlab.programs import run

if __name__ == "__main__":
    run("train")
