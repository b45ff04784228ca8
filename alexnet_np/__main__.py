"""`python -m alexnet_np` is the `alexnet` command."""

from alexnet_np.cli import main

if __name__ == "__main__":
    main()
