"""`python -m hotfolder` is the command `hotfolder`."""

from hotfolder.front.cli import main

if __name__ == "__main__":
    main()
